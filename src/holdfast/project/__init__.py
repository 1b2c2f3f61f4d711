"""What a git repository needs to work with Holdfast: proposed, written, checked."""
