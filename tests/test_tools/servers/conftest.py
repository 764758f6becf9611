"""Tests of the tools that start servers; they share the server of the workflow tests."""

from tests.workflows.conftest import client, server  # noqa: F401  fixtures
