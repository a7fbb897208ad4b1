"""A fuzzer for devices: `make fuzz`, `Documentation/fuzzing.rst`."""
