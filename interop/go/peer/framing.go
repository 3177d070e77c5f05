package main

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/xtaci/kcp-go/v5"
)

// sessionID opens every TCP connection of a session. To kcp-go it is the peer's address.
type sessionID [8]byte

func newSessionID() (id sessionID) {
	if _, err := rand.Read(id[:]); err != nil {
		panic(err)
	}
	return id
}

func (id sessionID) Network() string { return "turbotunnel" }
func (id sessionID) String() string  { return hex.EncodeToString(id[:]) }

// readPacket takes one packet off a connection: two bytes of length, the high one first, and so many bytes.
func readPacket(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	packet := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, packet)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return packet, err
}

// appendPacket is the way back.
func appendPacket(buffer, packet []byte) []byte {
	if len(packet) > 65535 {
		panic("kcp-go made a packet that no length field can hold")
	}
	return append(append(buffer, byte(len(packet)>>8), byte(len(packet))), packet...)
}

var errClosed = errors.New("closed")

// noDeadlines is the part of net.PacketConn that kcp-go wants to see and never uses here.
type noDeadlines struct{}

func (noDeadlines) SetDeadline(time.Time) error      { return errors.New("no deadlines here") }
func (noDeadlines) SetReadDeadline(time.Time) error  { return errors.New("no deadlines here") }
func (noDeadlines) SetWriteDeadline(time.Time) error { return errors.New("no deadlines here") }

// counters are for the whole process.
var counters struct{ tallies }

type tallies struct {
	connections, packetsIn, packetsOut, droppedIn, droppedOut, bytesIn, bytesOut, tasksDone, tasksFailed atomic.Int64
}

func (t *tallies) print() {
	k := kcp.DefaultSnmp.Copy()
	fmt.Fprintf(os.Stderr, "counters: connections=%d packets_in=%d packets_out=%d dropped_in=%d dropped_out=%d "+
		"bytes_in=%d bytes_out=%d resent=%d resent_early=%d resent_timeout=%d repeated=%d input_errors=%d tasks_done=%d tasks_failed=%d\n",
		t.connections.Load(), t.packetsIn.Load(), t.packetsOut.Load(), t.droppedIn.Load(), t.droppedOut.Load(),
		t.bytesIn.Load(), t.bytesOut.Load(), k.RetransSegs, k.EarlyRetransSegs, k.LostSegs, k.RepeatSegs, k.KCPInErrors,
		t.tasksDone.Load(), t.tasksFailed.Load())
}
