"""The masked transformer over the low-resolution grid."""
