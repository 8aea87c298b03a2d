"""forget: removes a video from everything, for good."""
