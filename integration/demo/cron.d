* * * * * root logger -t demo "a cron job ran as $(id -un)"
