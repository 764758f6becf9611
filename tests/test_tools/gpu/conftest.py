"""The program is tried on small networks in this process, as tests of `nodes/host` do it."""

from tests.host.conftest import comfy  # noqa: F401  a fixture
