"""The real ComfyUI for tests and the demo: `install` sets it up, `server` runs it, `client` talks to it."""
