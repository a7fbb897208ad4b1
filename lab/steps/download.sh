#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Downloads packages of the archive, PACKAGE=VERSION each, into the current folder. The build root stays as it is.

set -eu
mkdir -p /tmp/apt/archives/partial
exec apt-get -q -o Dir::Cache=/tmp/apt -o APT::Sandbox::User=root download "$@"
