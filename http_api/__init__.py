"""What the service and the local server share: OpenAI's API, doors, settings, a server that drains."""
