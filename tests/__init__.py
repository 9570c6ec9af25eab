"""Tests, laid out like kdcli/."""
