module squall

go 1.25
