"""kdcli distils an image classifier into a small, deployable one."""

__version__ = "0.1.0"  # also of a checkout that is not installed
