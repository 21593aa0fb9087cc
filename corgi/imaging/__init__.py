"""Images: headers, bounded decoding, metadata, colour. Untrusted image bytes are parsed only here."""
