"""The two sides that answer: how they are set up, loaded, watched and taken down."""
