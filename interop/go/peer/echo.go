package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"sync/atomic"
	"time"

	"github.com/xtaci/smux"
)

func echoServer(s settings, addr string, whileStdin bool) error {
	return serve(s, addr, whileStdin, func(stream *smux.Stream, tap *tap) {
		defer stream.Close()
		both := newEndpoint(stream, tap)
		n, err := copyOver(both, both, nil)
		log.Printf("session %v stream %d: echoed %d bytes, then %v", tap.RemoteAddr(), stream.ID(), n, err)
	})
}

// copyOver is io.Copy without its short cuts, which would go around an endpoint's own Read and Write.
func copyOver(to io.Writer, from io.Reader, count *atomic.Int64) (copied int64, err error) {
	buffer := make([]byte, 32768)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			written, err := to.Write(buffer[:n])
			copied += int64(written)
			if count != nil {
				count.Add(int64(written))
			}
			if err != nil {
				return copied, err
			}
		}
		if err == io.EOF {
			return copied, nil
		}
		if err != nil {
			return copied, err
		}
	}
}

func echoClient(s settings, addr, end string, retry bool) error {
	return withSession(s, addr, retry, func(session *smux.Session, tap *tap) error {
		return echoOver(session, tap, end)
	})
}

func echoOver(session *smux.Session, tap *tap, end string) error {
	raw, err := session.OpenStream()
	if err != nil {
		return err
	}
	stream := newEndpoint(raw, tap)

	down := make(chan error, 1)
	go func() {
		_, err := copyOver(os.Stdout, stream, &counters.bytesIn)
		os.Stdout.Close()
		down <- err
	}()
	upErr := error(nil)
	if _, upErr = copyOver(stream, os.Stdin, &counters.bytesOut); upErr != nil {
		upErr = fmt.Errorf("sending: %w", upErr)
	}

	var downErr error
	switch end {
	case "close":
		stream.Close()
		<-down // of no interest: our own closing ends it
	case "half":
		if upErr == nil {
			upErr = tap.halfClose(raw.ID())
		}
		downErr = <-down
		stream.Close()
	case "hold":
		for upErr == nil && downErr == nil && counters.bytesIn.Load() < counters.bytesOut.Load() {
			select {
			case downErr = <-down:
				if downErr == nil {
					downErr = errors.New("the server ended the stream")
				}
			case <-time.After(time.Millisecond):
			}
		}
		stream.Close()
	default:
		return fmt.Errorf("--end %s: want hold, half or close", end)
	}
	if upErr != nil {
		return upErr
	}
	if downErr != nil {
		return fmt.Errorf("receiving: %w", downErr)
	}
	if in, out := counters.bytesIn.Load(), counters.bytesOut.Load(); end != "close" && in != out {
		return fmt.Errorf("%d bytes came back of %d", in, out)
	}
	return nil
}
