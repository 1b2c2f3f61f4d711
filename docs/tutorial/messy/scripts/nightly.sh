#!/bin/sh
# every night, to see that the model still loads and answers
set -e
test -s outputs/wide_20260512_091500/best_model.safetensors
python serve.py
