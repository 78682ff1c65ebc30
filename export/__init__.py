"""From checkpoint to portable graphs: export, OpenVINO conversion and verification. Needs the extra `export`."""
