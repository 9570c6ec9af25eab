"""`python -m kdcli` is `kdcli`."""

from kdcli.cli.main import run

if __name__ == "__main__":
    run()
