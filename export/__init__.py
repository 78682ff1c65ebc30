"""Checkpoint to portable graphs: export, OpenVINO conversion and verification. Needs the `export` extra."""
