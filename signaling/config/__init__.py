"""The configuration file, environment and command line as one checked value. Read once, at the start."""
