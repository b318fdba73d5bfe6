"""The version, alone in a module: what writes it down need not import the package's public names."""

__version__ = "0.2.0"
