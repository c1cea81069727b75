"""Training the embedded model: its images, its networks, and the folder that is shipped."""
