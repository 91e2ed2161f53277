#!/bin/sh
# Stands in for the emulator in tests: runs what it is given for a kernel.
while [ "$1" != -kernel ]; do
    shift
done
. "$2"
