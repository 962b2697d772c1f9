"""What is learned of a black box from the pictures that it was asked about: a value of image features, and how sure it is."""
