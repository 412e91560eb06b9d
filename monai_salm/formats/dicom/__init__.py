"""DICOM files: read and written with every other byte as it was."""
