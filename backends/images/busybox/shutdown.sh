#!/bin/sh
# Inside the guest: what the guest agent (-h -P +0, -r +0) and people call; PID 1 does it.

case " $* " in
    *" -r "*) kill -TERM 1 ;;
    *) kill -USR2 1 ;;
esac
