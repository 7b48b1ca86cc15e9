"""`pd-cloud calibrate`: which heads of a model retrieve best, and where its guard draws the line."""
