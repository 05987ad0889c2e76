"""What is put into a session's directory: repositories, cloned with git."""
