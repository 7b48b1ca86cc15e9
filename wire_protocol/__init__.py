"""What travels between device and cloud: messages, codec, close codes. No I/O."""
