"""From bundle and video to instance masks with identities. Uses NumPy, OpenCV and one inference backend, no PyTorch."""
