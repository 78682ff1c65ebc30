"""Video instance segmentation datasets on disk, in the format of YouTube-VIS."""
