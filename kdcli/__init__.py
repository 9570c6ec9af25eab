"""kdcli distils an image classifier into a small, deployable one."""
