"""The version, in one place for the build and for telemetry."""

__version__ = "0.1.0"
