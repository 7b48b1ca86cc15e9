"""How the bundled models were made: data, training, and exporters that need no torch."""
