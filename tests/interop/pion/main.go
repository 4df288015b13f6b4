// Two peers of Pion in a call. Arguments: `--reports` for peers with one of the default interceptors alone, that of RTCP reports; the socket
// of the API, and the room.
//
// Standard output is lines of JSON, four a second: the version of Pion, each end with its states, the packets that it received by kind, and those
// that it lost.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/webrtc/v3"
	"github.com/pion/webrtc/v3/pkg/media"
)

var (
	// A silent frame of Opus (RFC 6716), and a key frame of VP8 of 16 by 16 pixels (RFC 6386, section 9.1) without its partitions, which no
	// end decodes.
	opus = []byte{0xf8, 0xff, 0xfe}
	vp8  = append([]byte{0x10, 0, 0, 0x9d, 0x01, 0x2a, 16, 0, 16, 0}, make([]byte, 500)...)
)

// Set by the linker.
var version = "of an unknown version"

type end struct {
	peer     *webrtc.PeerConnection
	received [2]atomic.Uint64
	lost     atomic.Int64
}

type report struct {
	States   [2]string `json:"states"`
	Received [2]uint64 `json:"received"`
	Lost     int64     `json:"lost"`
}

func (end *end) report() report {
	states := [2]string{end.peer.ConnectionState().String(), end.peer.ICEConnectionState().String()}
	return report{states, [2]uint64{end.received[0].Load(), end.received[1].Load()}, end.lost.Load()}
}

func check[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// openSession sends an offer to the gateway. It returns the SDP of the answer.
func openSession(api, room, offer string) string {
	body := check(json.Marshal(map[string]any{
		"scenario": "call", "room": room, "webrtc": map[string]string{"offer": offer},
	}))
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", api)
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial}}
	response := check(client.Post("http://localhost/v1/sessions", "application/json", bytes.NewReader(body)))
	defer response.Body.Close()
	text := check(io.ReadAll(response.Body))
	if response.StatusCode != http.StatusCreated {
		log.Fatalf("%d: %s", response.StatusCode, text)
	}
	var opened struct {
		WebRTC struct{ Answer string }
	}
	check(0, json.Unmarshal(text, &opened))
	return opened.WebRTC.Answer
}

// newPeer makes a peer with the default interceptors, or with RTCP reports alone and so without retransmissions: Pion 3 repeats a packet with
// its SRTP index (RFC 3711, section 3.3.2), which is a replay if the gateway had the packet and a node lost it.
func newPeer(reportsAlone bool) *webrtc.PeerConnection {
	if !reportsAlone {
		return check(webrtc.NewPeerConnection(webrtc.Configuration{}))
	}
	engine, registry := &webrtc.MediaEngine{}, &interceptor.Registry{}
	check(0, engine.RegisterDefaultCodecs())
	check(0, webrtc.ConfigureRTCPReports(registry))
	api := webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithInterceptorRegistry(registry))
	return check(api.NewPeerConnection(webrtc.Configuration{}))
}

// newEnd makes a peer with audio and video, and its offer.
func newEnd(reportsAlone bool) *end {
	end := &end{peer: newPeer(reportsAlone)}
	end.peer.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		received := &end.received[0]
		if track.Kind() == webrtc.RTPCodecTypeVideo {
			received = &end.received[1]
		}
		for expected, begun := uint16(0), false; ; begun = true {
			packet, _, err := track.ReadRTP()
			if err != nil {
				return
			}
			received.Add(1)
			// A packet that was counted as lost comes late.
			missing := int16(packet.SequenceNumber - expected)
			if begun && missing < 0 {
				end.lost.Add(-1)
				continue
			}
			if begun {
				end.lost.Add(int64(missing))
			}
			expected = packet.SequenceNumber + 1
		}
	})
	end.send(webrtc.MimeTypeOpus, "audio", opus, 20*time.Millisecond)
	end.send(webrtc.MimeTypeVP8, "video", vp8, 40*time.Millisecond)
	gathered := webrtc.GatheringCompletePromise(end.peer)
	check(0, end.peer.SetLocalDescription(check(end.peer.CreateOffer(nil))))
	<-gathered
	return end
}

// send repeats a frame.
func (end *end) send(codec, kind string, frame []byte, interval time.Duration) {
	track := check(webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: codec}, kind, "call"))
	sender := check(end.peer.AddTrack(track))
	// Pion handles RTCP as it is read.
	go func() {
		for {
			if _, _, err := sender.ReadRTCP(); err != nil {
				return
			}
		}
	}()
	go func() {
		for range time.Tick(interval) {
			check(0, track.WriteSample(media.Sample{Data: frame, Duration: interval}))
		}
	}()
}

// call joins the room.
func (end *end) call(api, room string) {
	sdp := openSession(api, room, end.peer.LocalDescription().SDP)
	check(0, end.peer.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: sdp}))
}

func main() {
	words := os.Args[1:]
	reportsAlone := words[0] == "--reports"
	if reportsAlone {
		words = words[1:]
	}
	api, room := words[0], words[1]
	ends := [2]*end{newEnd(reportsAlone), newEnd(reportsAlone)}
	ends[0].call(api, room)
	ends[1].call(api, room)
	for range time.Tick(250 * time.Millisecond) {
		line := check(json.Marshal(map[string]any{
			"clients": []string{"Pion " + version},
			"ends":    []report{ends[0].report(), ends[1].report()},
		}))
		fmt.Println(string(line))
	}
}
