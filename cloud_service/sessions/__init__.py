"""The devices' side of the service: WebSocket connections that speak `wire_protocol`."""
