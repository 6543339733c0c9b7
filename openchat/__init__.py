"""The command line and the local stack: the only place that wires everything."""

__version__ = "0.1.0"
