"""The demo's web site: OpenMoji pictures, served on loopback with the open web's faults mixed in."""
