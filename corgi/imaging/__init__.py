"""Images: headers, bounded decoding, metadata, colour. Hostile bytes are parsed only here."""
