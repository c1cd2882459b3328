"""What training minimises: cross-entropy of the answers, and the distance to what teachers say of them."""
