"""A real model on the CPU, by llama.cpp in a child process."""
