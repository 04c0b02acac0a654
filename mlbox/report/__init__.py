"""What an image holds, and why: ownership of every byte, differences between images, treemaps. Looks, never changes."""
