"""Bundle and video to instance masks with identities. NumPy, OpenCV and one inference backend; never PyTorch."""
