module interop-call

go 1.19

require (
	github.com/pion/interceptor v0.1.12
	github.com/pion/webrtc/v3 v3.1.56
)
