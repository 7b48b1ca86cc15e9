"""The protocol's reference, made from its types: Markdown tables and an AsyncAPI document.

`python -m wire_protocol.describe --help` says what it prints. Field descriptions are the `#:` comments of messages.py.
"""
