"""Files on disks and in object stores: paths, reading, and publishing by put-if-absent."""
