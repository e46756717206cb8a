"""Classify Fashion-MNIST: the library that the stages, the command line and the tests share."""
