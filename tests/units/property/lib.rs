// SPDX-License-Identifier: GPL-2.0

//! Nothing: Cargo wants a library to have tests beside it.
