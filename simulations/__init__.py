"""The same study on one machine: virtual hospitals, the real coordinator and the real site code.

A simulation shows how a study would run and what privacy would cost; it proves nothing about
patients that no generator describes.
"""
