"""`pd-demo`: the same question on the device, in the cloud and split between them, side by side."""
