"""Widgets. They draw a view-model and call its methods; none of them opens a file, a socket or a model."""
