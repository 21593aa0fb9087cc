"""The demo's web site: emoji in several art styles, served on loopback with the open web's faults mixed in."""
